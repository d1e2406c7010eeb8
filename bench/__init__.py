"""Named workloads of the product, each beside the same work as hand-written SQL in the same run."""

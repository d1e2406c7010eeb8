"""Each analysis builds a plan and reads its answer. No I/O."""

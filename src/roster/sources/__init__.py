"""Outside places that hold customer data."""

"""Every use case, one function each, in one table. The only way in for all doors."""

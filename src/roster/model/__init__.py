"""What people define: schemas, mappings, connections, reference tables, keys. Pure values, no I/O."""

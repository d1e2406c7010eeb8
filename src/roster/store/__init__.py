"""Our own records in SQL: keys, mappings, connections, tables, audit."""

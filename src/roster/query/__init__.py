"""From a search string or a request to a plan, and from a plan to SQL. Pure, no driver."""

"""A made-up product with believable people: data for the demo and the tests, no product code."""

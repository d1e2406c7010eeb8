"""The HTTP door: routes, authentication, error bodies, limits."""

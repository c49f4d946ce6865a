"""The HTTP interface: one module per resource, each with its router."""

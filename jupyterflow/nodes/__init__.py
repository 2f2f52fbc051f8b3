"""The catalogue of node kinds and connectors, a small module each."""

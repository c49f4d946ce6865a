"""Texts to chunks (for vectors) and to lexemes (for words)."""

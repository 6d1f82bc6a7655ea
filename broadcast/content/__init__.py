"""Rendering of user and program input: Markdown to HTML, message templates to text."""

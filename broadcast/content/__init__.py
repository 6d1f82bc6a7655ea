"""What people and programs write, and how it reads: Markdown as HTML, message templates as text."""

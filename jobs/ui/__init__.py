"""What commands share at the terminal: arguments and options, tables, progress, the JSON envelope, and reports as text or HTML.

Imports no command."""

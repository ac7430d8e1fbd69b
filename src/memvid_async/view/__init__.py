"""What people see of a recording: pages, documents, and text that is safe to print."""

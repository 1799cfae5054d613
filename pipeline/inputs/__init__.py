"""What people hand in: a CSV and a folder or zip of pictures, checked."""

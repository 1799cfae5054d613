"""What people hand in: folders and zips of pictures, and what tells their labels, checked."""

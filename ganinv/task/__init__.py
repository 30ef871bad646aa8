"""What an encoder reads: the image itself, or an input of an image-to-image task."""

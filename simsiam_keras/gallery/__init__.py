"""Features of many images, kept with the images' names: written, searched, compared."""

"""Image formats, one a module: each reads the slices of a file, and some write masks in the form of their source."""

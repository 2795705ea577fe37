"""What lies near what: a page to look at all images of a data set, and groups of duplicates."""

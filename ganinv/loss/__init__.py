"""Floor 2: loss terms. Each gives one number an image; weights and means are taken in `Terms`."""

"""A decoded picture on its way to the RGB pixels that a viewer would see."""

"""The colours of a picture: from any Y'CbCr, HDR or ICC profile to RGB of sRGB displays."""

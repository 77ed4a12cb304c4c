"""What is in the way of an installation, each finding with what to do about it: ``rivulet doctor``."""

"""Models in the forms that nodes and servers run; training and release both write them."""

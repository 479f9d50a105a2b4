"""A release's models in the forms that hardware profiles ask for, each compared with the model that was trained."""

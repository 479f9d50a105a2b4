"""When things happen: one Prefect flow per file."""

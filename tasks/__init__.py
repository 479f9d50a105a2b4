"""How Prefect sees each step: retries, artifacts and tags around functions of the library, by stage."""

"""Models as KServe and MLServer run them, started by the tests in environments that have no edgeloop."""

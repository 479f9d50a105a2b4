"""What is offered and where: service and fleet descriptions, and the registration of flows with Prefect."""

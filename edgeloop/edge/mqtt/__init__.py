"""The way in over MQTT."""

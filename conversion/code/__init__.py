"""Model code (model_fn, build function, Keras) -> a source, built again on one device."""

//! A small MQTT client machine: load generator, simulation, tests.

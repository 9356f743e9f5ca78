//! One client's MQTT state: connect, keep alive, windows, QoS 1 and 2 tables, aliases, will.

//! MQTT bytes to packets and back, versions 3.1, 3.1.1 and 5.0; one file a packet, versions side by side in it.

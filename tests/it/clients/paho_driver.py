"""paho-mqtt, driven by lines on standard input: see tests/it/driver.rs."""

import queue
import socket
import sys

import paho.mqtt.client as paho
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

# Longer than the other end waits: that one fails first, and says why.
DEADLINE_SECS = 60


class Client:
    def __init__(self, host, port, level):
        self.host, self.port, self.level = host, port, level
        self.connacks, self.subacks, self.unsubacks = queue.Queue(), queue.Queue(), queue.Queue()
        self.messages, self.ends = queue.Queue(), queue.Queue()
        self.client = None

    def connect(self, client_id, persistent, expiry, *will):
        is_persistent, is_v5 = persistent == "1", self.level == 5
        self.client = paho.Client(
            paho.CallbackAPIVersion.VERSION2,
            client_id,
            clean_session=None if is_v5 else not is_persistent,
            protocol=self.level,
            reconnect_on_failure=False,
        )
        self.client.on_connect = lambda _c, _u, flags, reason, _p: self.connacks.put((flags.session_present, reason))
        self.client.on_subscribe = lambda _c, _u, _mid, reasons, _p: self.subacks.put(reasons)
        self.client.on_unsubscribe = lambda _c, _u, _mid, _r, _p: self.unsubacks.put(None)
        self.client.on_message = lambda _c, _u, message: self.messages.put(message)
        self.client.on_disconnect = lambda _c, _u, flags, reason, _p: self.ends.put((flags, reason))
        if will:
            topic, qos, retain, payload = will
            self.client.will_set(topic, bytes.fromhex(payload), int(qos), retain == "1")
        options = {}
        if is_v5:
            properties = Properties(PacketTypes.CONNECT)
            properties.SessionExpiryInterval = int(expiry) if is_persistent else 0
            options = {"clean_start": not is_persistent, "properties": properties}
        self.client.connect(self.host, self.port, **options)
        self.client.loop_start()
        session_present, reason = self.connacks.get(timeout=DEADLINE_SECS)
        if reason.is_failure:
            raise RuntimeError(f"refused: {reason}")
        return [str(int(session_present))]

    def subscribe(self, topic_filter, qos):
        self.client.subscribe(topic_filter, int(qos))
        return [str(self.subacks.get(timeout=DEADLINE_SECS)[0].value)]

    def unsubscribe(self, topic_filter):
        self.client.unsubscribe(topic_filter)
        self.unsubacks.get(timeout=DEADLINE_SECS)
        return []

    def publish(self, topic, qos, retain, payload):
        info = self.client.publish(topic, bytes.fromhex(payload), int(qos), retain == "1")
        info.wait_for_publish(DEADLINE_SECS)
        if not info.is_published():
            raise TimeoutError("not acknowledged")
        return []

    def receive(self):
        message = self.messages.get(timeout=DEADLINE_SECS)
        return [message.topic, str(message.qos), str(int(message.retain)), message.payload.hex()]

    def disconnect(self):
        self.client.disconnect()
        self.ends.get(timeout=DEADLINE_SECS)
        return []

    def kill(self):
        self.client.socket().shutdown(socket.SHUT_RDWR)
        return []

    def closed(self):
        flags, reason = self.ends.get(timeout=DEADLINE_SECS)
        return [str(reason.value)] if flags.is_disconnect_packet_from_server else []


def main():
    host, port, level = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    client = Client(host, port, level)
    for line in sys.stdin:
        command, *fields = line.rstrip("\n").split("\t")
        try:
            answer = ["ok", *getattr(client, command)(*fields)]
        except Exception as error:  # The other end fails the test with it.
            answer = ["error", repr(error)]
        print("\t".join(answer), flush=True)


main()

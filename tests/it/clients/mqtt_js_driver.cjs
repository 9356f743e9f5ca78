// mqtt.js, driven by lines on standard input: see tests/it/driver.rs.
'use strict';

const mqtt = require('mqtt');
const readline = require('node:readline');

const [host, port, level] = process.argv.slice(2);

/** Hands each value to one waiter, in order. */
class Queue {
  values = [];
  waiters = [];

  put(value) {
    const waiter = this.waiters.shift();
    if (waiter) waiter(value);
    else this.values.push(value);
  }

  async get() {
    if (this.values.length > 0) return this.values.shift();
    return new Promise((resolve) => this.waiters.push(resolve));
  }
}

const messages = new Queue();
const ends = new Queue();
let client;
let reason;

const commands = {
  async connect(clientId, persistent, expiry, ...will) {
    const isPersistent = persistent === '1';
    const options = {
      host,
      port: Number(port),
      protocol: 'mqtt',
      clientId,
      clean: !isPersistent,
      protocolVersion: Number(level),
      protocolId: level === '3' ? 'MQIsdp' : 'MQTT',
      reconnectPeriod: 0,
    };
    if (level === '5') options.properties = { sessionExpiryInterval: isPersistent ? Number(expiry) : 0 };
    if (will.length > 0) {
      const [topic, qos, retain, payload] = will;
      options.will = { topic, qos: Number(qos), retain: retain === '1', payload: Buffer.from(payload, 'hex') };
    }
    client = mqtt.connect(options);
    client.on('message', (topic, payload, packet) => messages.put({ topic, payload, packet }));
    client.on('disconnect', (packet) => (reason = packet.reasonCode));
    client.on('close', () => ends.put());
    const connack = await new Promise((resolve, reject) => {
      client.once('connect', resolve);
      client.once('error', reject);
    });
    client.on('error', () => {});
    return [connack.sessionPresent ? '1' : '0'];
  },

  async subscribe(filter, qos) {
    const granted = await client.subscribeAsync(filter, { qos: Number(qos) });
    return [String(granted[0].qos)];
  },

  async unsubscribe(filter) {
    await client.unsubscribeAsync(filter);
    return [];
  },

  async publish(topic, qos, retain, payload) {
    await client.publishAsync(topic, Buffer.from(payload, 'hex'), { qos: Number(qos), retain: retain === '1' });
    return [];
  },

  async receive() {
    const { topic, payload, packet } = await messages.get();
    return [topic, String(packet.qos), packet.retain ? '1' : '0', payload.toString('hex')];
  },

  async disconnect() {
    await client.endAsync();
    return [];
  },

  async kill() {
    client.stream.destroy();
    await ends.get();
    return [];
  },

  async closed() {
    await ends.get();
    return reason === undefined ? [] : [String(reason)];
  },
};

async function main() {
  for await (const line of readline.createInterface({ input: process.stdin })) {
    const [command, ...fields] = line.split('\t');
    let answer;
    try {
      answer = ['ok', ...(await commands[command](...fields))];
    } catch (error) {
      // The other end fails the test with it.
      answer = ['error', String(error)];
    }
    process.stdout.write(`${answer.join('\t')}\n`);
  }
  process.exit(0);
}

main();

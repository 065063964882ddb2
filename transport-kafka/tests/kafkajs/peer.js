// A foreign client for tests: `produce` and `consume`, with JSON on stdin and stdout.
const { CloudEvent, Kafka: Binding } = require('cloudevents')
const { Kafka, CompressionTypes, Partitioners, logLevel } = require('kafkajs')

const [verb, brokers, topic, ...rest] = process.argv.slice(2)
const kafka = new Kafka({ clientId: 'peer', brokers: brokers.split(','), logLevel: logLevel.ERROR })

const read = async () => {
  const chunks = []
  for await (const chunk of process.stdin) chunks.push(chunk)
  return JSON.parse(Buffer.concat(chunks))
}

// One send for each message: its answer then says where that message lies.
const produce = async (compression) => {
  const producer = kafka.producer({ createPartitioner: Partitioners.DefaultPartitioner })
  await producer.connect()
  const places = []
  for (const message of await read()) {
    const [{ partition, baseOffset }] = await producer.send({
      topic,
      messages: [message],
      compression: compression === 'gzip' ? CompressionTypes.GZIP : CompressionTypes.None,
    })
    places.push({ partition, offset: baseOffset })
  }
  await producer.disconnect()
  return places
}

// One batch for one partition: `count` messages alike, with values and keys of the given sizes, and `headers` headers.
const batch = async (partition, compression) => {
  const { count, size, key, headers, headerName } = await read()
  const names = Array.from({ length: headers ?? 0 }, (_, n) => [`${headerName ?? ''}${n.toString(36)}`, ''])
  const message = {
    partition: Number(partition),
    key: key === undefined ? null : typeof key === 'number' ? 'k'.repeat(key) : key,
    value: '0'.repeat(size ?? 1),
    headers: Object.fromEntries(names),
  }
  const producer = kafka.producer({ createPartitioner: Partitioners.DefaultPartitioner })
  await producer.connect()
  const [{ baseOffset }] = await producer.send({
    topic,
    messages: Array(count).fill(message),
    compression: compression === 'gzip' ? CompressionTypes.GZIP : CompressionTypes.None,
  })
  await producer.disconnect()
  return [{ offset: baseOffset }]
}

// Sends each event as a message in `binary` or `structured` mode, built by the CloudEvents SDK.
const produceEvents = async (mode) => {
  const producer = kafka.producer({ createPartitioner: Partitioners.DefaultPartitioner })
  await producer.connect()
  for (const attributes of await read()) {
    const { headers, value } = Binding[mode](new CloudEvent(attributes))
    // The SDK has a header for each attribute, and KafkaJS takes none without a value.
    const given = Object.fromEntries(Object.entries(headers).filter(([, text]) => text !== undefined))
    const text = typeof value === 'string' ? value : JSON.stringify(value)
    await producer.send({ topic, messages: [{ headers: given, value: text }] })
  }
  await producer.disconnect()
  return []
}

// Reads `count` messages as events, with the CloudEvents SDK.
const consumeEvents = async (groupId, count) => {
  const messages = await consume(groupId, count)
  return messages.map(({ value, headers }) => Binding.toEvent({ value, headers: Object.fromEntries(headers) }).toJSON())
}

// Reads `count` messages, commits behind each, and leaves the group.
const consume = async (groupId, count) => {
  const consumer = kafka.consumer({ groupId })
  await consumer.connect()
  await consumer.subscribe({ topic, fromBeginning: true })
  const messages = []
  await new Promise((resolve, reject) => {
    consumer
      .run({
        autoCommit: false,
        eachMessage: async ({ partition, message }) => {
          if (messages.length === Number(count)) return
          const text = (value) => (value === null || value === undefined ? null : value.toString())
          const headers = Object.entries(message.headers).map(([name, value]) => [name, text(value)])
          messages.push({ partition, offset: message.offset, key: text(message.key), value: text(message.value), headers })
          await consumer.commitOffsets([{ topic, partition, offset: String(BigInt(message.offset) + 1n) }])
          if (messages.length === Number(count)) resolve()
        },
      })
      .catch(reject)
  })
  await consumer.disconnect()
  return messages
}

// Every access control entry, as one flat object each.
const acls = async () => {
  const admin = kafka.admin()
  await admin.connect()
  const any = { resourceType: 1, resourcePatternType: 1, operation: 1, permissionType: 1 }
  const { resources } = await admin.describeAcls(any)
  await admin.disconnect()
  return resources.flatMap(({ acls, ...resource }) => acls.map((acl) => ({ ...resource, ...acl })))
}

const verbs = { produce, batch, consume, acls, produceEvents, consumeEvents }
verbs[verb](...rest)
  .then((answer) => process.stdout.write(JSON.stringify(answer)))
  .catch((error) => {
    console.error(error)
    process.exitCode = 1
  })

// Reads record batches with the classes of Java's client, and writes their records as new batches.
// Input: for each batch the codec to write, its length, and its bytes. Output: for each batch its length and its bytes.

import java.io.BufferedInputStream;
import java.io.BufferedOutputStream;
import java.io.DataInputStream;
import java.io.DataOutputStream;
import java.nio.ByteBuffer;
import java.nio.file.Files;
import java.nio.file.Path;
import org.apache.kafka.common.compress.Compression;
import org.apache.kafka.common.record.CompressionType;
import org.apache.kafka.common.record.MemoryRecords;
import org.apache.kafka.common.record.MemoryRecordsBuilder;
import org.apache.kafka.common.record.MutableRecordBatch;
import org.apache.kafka.common.record.Record;
import org.apache.kafka.common.record.TimestampType;
import org.apache.kafka.common.utils.BufferSupplier;
import org.apache.kafka.common.utils.CloseableIterator;

public final class Oracle {
    public static void main(String[] args) throws Exception {
        try (DataInputStream in = new DataInputStream(new BufferedInputStream(Files.newInputStream(Path.of(args[0]))));
             DataOutputStream out = new DataOutputStream(new BufferedOutputStream(Files.newOutputStream(Path.of(args[1]))))) {
            while (in.available() > 0) {
                CompressionType codec = CompressionType.forId(in.readInt());
                byte[] given = in.readNBytes(in.readInt());
                ByteBuffer written = rewritten(ByteBuffer.wrap(given), codec);
                out.writeInt(written.remaining());
                out.write(written.array(), written.arrayOffset() + written.position(), written.remaining());
            }
        }
    }

    private static ByteBuffer rewritten(ByteBuffer given, CompressionType codec) throws Exception {
        int size = given.remaining();
        MutableRecordBatch batch = MemoryRecords.readableRecords(given).batches().iterator().next();
        batch.ensureValid();
        if (batch.sizeInBytes() != size) {
            throw new IllegalStateException("a batch of " + batch.sizeInBytes() + " bytes, not " + size);
        }
        MemoryRecordsBuilder builder = new MemoryRecordsBuilder(ByteBuffer.allocate(size + 1024), batch.magic(),
            Compression.of(codec).build(), TimestampType.CREATE_TIME, batch.baseOffset(), -1L, batch.producerId(),
            batch.producerEpoch(), batch.baseSequence(), batch.isTransactional(), false,
            batch.partitionLeaderEpoch(), Integer.MAX_VALUE);
        int count = 0;
        try (CloseableIterator<Record> records = batch.streamingIterator(BufferSupplier.create())) {
            while (records.hasNext()) {
                Record record = records.next();
                record.ensureValid();
                builder.appendWithOffset(record.offset(), record.timestamp(), record.key(), record.value(), record.headers());
                count++;
            }
        }
        if (batch.countOrNull() != count) {
            throw new IllegalStateException(count + " records, not " + batch.countOrNull());
        }
        return builder.build().buffer();
    }
}

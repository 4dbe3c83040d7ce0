import com.fasterxml.jackson.databind.DeserializationFeature;
import com.fasterxml.jackson.databind.ObjectMapper;
import com.fasterxml.jackson.databind.ObjectReader;
import com.fasterxml.jackson.databind.ObjectWriter;
import java.io.IOException;
import java.io.UncheckedIOException;
import java.nio.ByteBuffer;
import java.time.Duration;
import java.util.Properties;
import org.apache.kafka.clients.consumer.ConsumerConfig;
import org.apache.kafka.common.serialization.Serde;
import org.apache.kafka.common.serialization.Serdes;
import org.apache.kafka.streams.KafkaStreams;
import org.apache.kafka.streams.StreamsBuilder;
import org.apache.kafka.streams.StreamsConfig;
import org.apache.kafka.streams.Topology;
import org.apache.kafka.streams.errors.StreamsUncaughtExceptionHandler.StreamThreadExceptionResponse;
import org.apache.kafka.streams.kstream.Consumed;
import org.apache.kafka.streams.kstream.Produced;
import org.apache.kafka.streams.kstream.TimeWindows;
import org.apache.kafka.streams.processor.api.FixedKeyProcessor;
import org.apache.kafka.streams.processor.api.FixedKeyProcessorContext;
import org.apache.kafka.streams.processor.api.FixedKeyRecord;
import org.apache.kafka.streams.state.StoreBuilder;
import org.apache.kafka.streams.state.Stores;
import org.apache.kafka.streams.state.WindowStore;

/**
 * What a Kafka Streams user would write: count and mean of one field per key in a 60 s tumbling window, JSON in and out.
 *
 * <p>Arguments: BROKER EVENTS_TOPIC OUTPUT_TOPIC NAME STATE_DIRECTORY. The window lies in RocksDB with a changelog and
 * the cache that windows have by default. The DSL's aggregate would send only what leaves that cache; a processor over
 * the same store sends the window as it then stands for every event: one result per event. All else is as it comes:
 * at least once, a commit every 30 s.
 */
public final class KafkaStreamsWindow {
    /** The fields that are used; Jackson skips the others. */
    record Event(String id, String key, long time, double amount) {}

    record Result(String id, String key, long start, long count, double mean) {}

    record Totals(long count, double sum) {}

    private static final TimeWindows WINDOWS =
            TimeWindows.ofSizeAndGrace(Duration.ofSeconds(60), Duration.ofSeconds(10));
    private static final String STORE = "totals";
    private static final ObjectMapper JSON =
            new ObjectMapper().disable(DeserializationFeature.FAIL_ON_UNKNOWN_PROPERTIES);

    private KafkaStreamsWindow() {}

    /** Run until stopped. */
    public static void main(String[] arguments) {
        KafkaStreams streams = new KafkaStreams(topology(arguments[1], arguments[2]), settings(arguments));
        streams.setUncaughtExceptionHandler(error -> {
            error.printStackTrace();
            Runtime.getRuntime().halt(1); // the bench sees that it has ended; a close would wait for this thread
            return StreamThreadExceptionResponse.SHUTDOWN_CLIENT;
        });
        Runtime.getRuntime().addShutdownHook(new Thread(() -> streams.close(Duration.ofSeconds(10))));
        streams.start();
    }

    private static Properties settings(String[] arguments) {
        Properties settings = new Properties();
        settings.put(StreamsConfig.BOOTSTRAP_SERVERS_CONFIG, arguments[0]);
        settings.put(StreamsConfig.APPLICATION_ID_CONFIG, arguments[3]);
        settings.put(StreamsConfig.STATE_DIR_CONFIG, arguments[4]);
        settings.put(StreamsConfig.NUM_STREAM_THREADS_CONFIG, 2);
        settings.put(StreamsConfig.REPLICATION_FACTOR_CONFIG, 1);
        settings.put(ConsumerConfig.AUTO_OFFSET_RESET_CONFIG, "earliest");
        return settings;
    }

    private static Topology topology(String eventsTopic, String outputTopic) {
        StreamsBuilder builder = new StreamsBuilder();
        builder.addStateStore(store());
        builder.stream(eventsTopic, Consumed.with(Serdes.String(), json(Event.class))
                        .withTimestampExtractor((event, partitionTime) -> timeMs((Event) event.value(), partitionTime)))
                .filter((key, event) -> event != null)
                .processValues(AddToWindow::new, STORE)
                .to(outputTopic, Produced.with(Serdes.String(), json(Result.class)));
        return builder.build();
    }

    private static StoreBuilder<WindowStore<String, Totals>> store() {
        Duration size = Duration.ofMillis(WINDOWS.size());
        Duration retention = size.plusMillis(WINDOWS.gracePeriodMs());
        return Stores.windowStoreBuilder(
                        Stores.persistentWindowStore(STORE, retention, size, false), Serdes.String(), totals())
                .withCachingEnabled();
    }

    private static long timeMs(Event event, long partitionTime) {
        return event == null ? partitionTime : event.time() / 1000;
    }

    /** Adds an event to its window and forwards the window as it stands. */
    private static final class AddToWindow implements FixedKeyProcessor<String, Event, Result> {
        private FixedKeyProcessorContext<String, Result> context;
        private WindowStore<String, Totals> windows;

        @Override
        public void init(FixedKeyProcessorContext<String, Result> context) {
            this.context = context;
            this.windows = context.getStateStore(STORE);
        }

        @Override
        public void process(FixedKeyRecord<String, Event> record) {
            Event event = record.value();
            long start = record.timestamp() - record.timestamp() % WINDOWS.size();
            Totals before = windows.fetch(record.key(), start);
            Totals now = before == null
                    ? new Totals(1, event.amount())
                    : new Totals(before.count() + 1, before.sum() + event.amount());
            windows.put(record.key(), now, start);
            Result result = new Result(event.id(), record.key(), start, now.count(), now.sum() / now.count());
            context.forward(record.withValue(result));
        }
    }

    private static <T> Serde<T> json(Class<T> kind) {
        ObjectReader reader = JSON.readerFor(kind);
        ObjectWriter writer = JSON.writerFor(kind);
        return Serdes.serdeFrom(
                (topic, value) -> {
                    try {
                        return value == null ? null : writer.writeValueAsBytes(value);
                    } catch (IOException error) {
                        throw new UncheckedIOException(error);
                    }
                },
                (topic, bytes) -> {
                    try {
                        return bytes == null ? null : reader.readValue(bytes);
                    } catch (IOException error) {
                        throw new UncheckedIOException(error);
                    }
                });
    }

    /** Sixteen bytes: cheaper than JSON in the store and its changelog. */
    private static Serde<Totals> totals() {
        return Serdes.serdeFrom(
                (topic, totals) -> totals == null
                        ? null
                        : ByteBuffer.allocate(16).putLong(totals.count()).putDouble(totals.sum()).array(),
                (topic, bytes) -> {
                    if (bytes == null) {
                        return null;
                    }
                    ByteBuffer read = ByteBuffer.wrap(bytes);
                    return new Totals(read.getLong(), read.getDouble());
                });
    }
}

package arrears.bench;

import com.fasterxml.jackson.annotation.JsonIgnoreProperties;
import com.fasterxml.jackson.annotation.JsonInclude;
import com.fasterxml.jackson.databind.ObjectMapper;
import com.fasterxml.jackson.databind.ObjectReader;
import com.fasterxml.jackson.databind.ObjectWriter;
import java.io.IOException;
import java.io.UncheckedIOException;
import java.math.BigDecimal;
import java.time.Duration;
import java.time.Instant;
import java.util.Map;
import java.util.Properties;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.atomic.AtomicBoolean;
import java.util.concurrent.atomic.AtomicLong;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.serialization.ByteArrayDeserializer;
import org.apache.kafka.common.serialization.ByteArraySerializer;
import org.apache.kafka.common.serialization.Serde;
import org.apache.kafka.common.serialization.Serdes;
import org.apache.kafka.common.serialization.StringDeserializer;
import org.apache.kafka.common.serialization.StringSerializer;
import org.apache.kafka.streams.CloseOptions;
import org.apache.kafka.streams.KafkaStreams;
import org.apache.kafka.streams.Topology;
import org.apache.kafka.streams.processor.StateRestoreListener;
import org.apache.kafka.streams.processor.api.Processor;
import org.apache.kafka.streams.processor.api.ProcessorContext;
import org.apache.kafka.streams.processor.api.Record;
import org.apache.kafka.streams.state.KeyValueStore;
import org.apache.kafka.streams.state.Stores;

/**
 * The peers' job: per account its balance and since when it owes, in a fault-tolerant store; a JSON record out whenever
 * it enters or leaves arrears. Exactly once.
 *
 * <p>Arguments: brokers, application id, output topic, records there are, state folder, commit interval in ms. It says {@code first MS} when it has
 * records it ends as soon as the state is restored. It says {@code first MS} and {@code running MS} (since 1970), and
 * in the end {@code restored N}.
 */
public final class Balances {
  @JsonIgnoreProperties(ignoreUnknown = true)
  static class Event {
    public String account_id;
    public String amount;
    public String issued_at;
    public String paid_at;
  }

  static class Balance {
    public long micros;
    public Long arrears_since;
  }

  @JsonInclude(JsonInclude.Include.NON_NULL)
  record Change(String account_id, String kind, String at, Long owed) {}

  private static final ObjectMapper JSON = new ObjectMapper();
  private static final ObjectReader EVENT = JSON.readerFor(Event.class);
  private static final ObjectReader BALANCE = JSON.readerFor(Balance.class);
  private static final ObjectWriter BALANCE_WRITER = JSON.writerFor(Balance.class);
  private static final ObjectWriter CHANGE_WRITER = JSON.writerFor(Change.class);
  private static final String STORE = "balances";

  private final AtomicBoolean started = new AtomicBoolean();
  private final AtomicLong processed = new AtomicLong();
  private final AtomicLong restored = new AtomicLong();
  private final CountDownLatch done = new CountDownLatch(1);
  private final long records;

  private Balances(long records) {
    this.records = records;
  }

  private final class Ledger implements Processor<String, byte[], String, byte[]> {
    private ProcessorContext<String, byte[]> context;
    private KeyValueStore<String, Balance> store;

    @Override
    public void init(ProcessorContext<String, byte[]> context) {
      this.context = context;
      this.store = context.getStateStore(STORE);
    }

    @Override
    public void process(Record<String, byte[]> record) {
      if (!started.get() && started.compareAndSet(false, true)) {
        say("first");
      }
      try {
        apply(record);
      } catch (IOException error) {
        throw new UncheckedIOException(error);
      }
      if (processed.incrementAndGet() == records) {
        done.countDown();
      }
    }

    private void apply(Record<String, byte[]> record) throws IOException {
      Event event = EVENT.readValue(record.value());
      long amount = new BigDecimal(event.amount).movePointRight(6).longValueExact();
      boolean isBill = event.issued_at != null;
      String at = isBill ? event.issued_at : event.paid_at;
      Balance balance = store.get(event.account_id);
      if (balance == null) {
        balance = new Balance();
      }
      long before = balance.micros;
      balance.micros = isBill ? before - amount : before + amount;
      Change change = null;
      if (before >= 0 && balance.micros < 0) {
        balance.arrears_since = Instant.parse(at).getEpochSecond();
        change = new Change(event.account_id, "arrears_started", at, -balance.micros);
      } else if (before < 0 && balance.micros >= 0) {
        balance.arrears_since = null;
        change = new Change(event.account_id, "cleared", at, null);
      }
      store.put(event.account_id, balance);
      if (change != null) {
        context.forward(
            new Record<>(event.account_id, CHANGE_WRITER.writeValueAsBytes(change), record.timestamp()));
      }
    }
  }

  private final class Restored implements StateRestoreListener {
    @Override
    public void onRestoreStart(TopicPartition partition, String store, long from, long to) {}

    @Override
    public void onBatchRestored(TopicPartition partition, String store, long to, long records) {
      restored.addAndGet(records);
    }

    @Override
    public void onRestoreEnd(TopicPartition partition, String store, long records) {}
  }

  private Topology topology(String output) {
    Topology topology = new Topology();
    topology.addSource("inputs", new StringDeserializer(), new ByteArrayDeserializer(), "bills", "payments");
    topology.addProcessor("ledger", Ledger::new, "inputs");
    topology.addStateStore(
        Stores.keyValueStoreBuilder(Stores.persistentKeyValueStore(STORE), Serdes.String(), balanceSerde())
            .withLoggingEnabled(Map.of())
            .withCachingDisabled(),
        "ledger");
    topology.addSink("changes", output, new StringSerializer(), new ByteArraySerializer(), "ledger");
    return topology;
  }

  private static Serde<Balance> balanceSerde() {
    return Serdes.serdeFrom(
        (topic, balance) -> {
          try {
            return balance == null ? null : BALANCE_WRITER.writeValueAsBytes(balance);
          } catch (IOException error) {
            throw new UncheckedIOException(error);
          }
        },
        (topic, bytes) -> {
          try {
            return bytes == null ? null : BALANCE.readValue(bytes);
          } catch (IOException error) {
            throw new UncheckedIOException(error);
          }
        });
  }

  private static void say(String what) {
    System.out.println(what + " " + System.currentTimeMillis());
  }

  public static void main(String[] arguments) throws InterruptedException {
    Balances balances = new Balances(Long.parseLong(arguments[3]));
    Properties settings = new Properties();
    settings.put("bootstrap.servers", arguments[0]);
    settings.put("application.id", arguments[1]);
    settings.put("state.dir", arguments[4]);
    settings.put("commit.interval.ms", arguments[5]);
    settings.put("num.stream.threads", "2");
    settings.put("processing.guarantee", "exactly_once_v2");
    settings.put("auto.offset.reset", "earliest");
    KafkaStreams streams = new KafkaStreams(balances.topology(arguments[2]), settings);
    streams.setStateListener(
        (now, before) -> {
          if (now == KafkaStreams.State.RUNNING) {
            say("running");
            if (balances.records == 0) {
              balances.done.countDown();
            }
          } else if (now == KafkaStreams.State.ERROR) {
            Runtime.getRuntime().halt(3);
          }
        });
    streams.setGlobalStateRestoreListener(balances.new Restored());
    streams.start();
    balances.done.await();
    // It commits what is open, and leaves: else the next of this name would wait for its session to end.
    streams.close(
        CloseOptions.timeout(Duration.ofSeconds(30))
            .withGroupMembershipOperation(CloseOptions.GroupMembershipOperation.LEAVE_GROUP));
    System.out.println("restored " + balances.restored.get());
    System.exit(0);
  }
}

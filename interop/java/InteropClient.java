import java.lang.reflect.InvocationTargetException;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import java.util.logging.LogManager;

/**
 * gRPC's interop cases from gRPC-Java's own interop client: those it is given, in order, in one virtual machine, which that
 * client's own command line cannot do. Its steps are not public, hence the reflection.
 *
 * <p>Arguments: {@code ADDRESS CASES... [ADDRESS CASES...] -- OPTIONS...}, the options being those of the interop client. Prints a
 * line of JSON for each case: {@code {"case": …, "error": … or ""}}.
 */
class InteropClient {
  private static final Class<?> CLIENT = clientClass();

  public static void main(String[] arguments) throws Exception {
    LogManager.getLogManager().reset();
    var split = Arrays.asList(arguments).indexOf("--");
    var options = Arrays.asList(arguments).subList(split + 1, arguments.length);
    var server = List.<String>of();
    for (var word : Arrays.copyOf(arguments, split)) {
      var colon = word.lastIndexOf(':');
      if (colon >= 0) {
        server = List.of("--server_host=" + word.substring(0, colon), "--server_port=" + word.substring(colon + 1));
        continue;
      }
      var flags = new ArrayList<String>(server);
      flags.add("--test_case=" + word);
      flags.addAll(options);
      var error = error(flags.toArray(String[]::new));
      System.out.printf("{\"case\": \"%s\", \"error\": \"%s\"}%n", word, escaped(error));
    }
    System.exit(0);
  }

  private static String error(String[] flags) throws Exception {
    registerLoadReports();
    var constructor = CLIENT.getDeclaredConstructor();
    constructor.setAccessible(true);
    var client = constructor.newInstance();
    step(client, "parseArgs", (Object) flags);
    step(client, "setUp");
    try {
      step(client, "run");
      return "";
    } catch (InvocationTargetException failure) {
      Throwable cause = failure.getCause();
      while (cause.getCause() != null) cause = cause.getCause();
      return cause.toString();
    } finally {
      step(client, "tearDown");
    }
  }

  private static void step(Object client, String name, Object... arguments) throws Exception {
    var method = arguments.length == 0 ? CLIENT.getDeclaredMethod(name) : CLIENT.getDeclaredMethod(name, String[].class);
    method.setAccessible(true);
    method.invoke(client, arguments);
  }

  /** What the client's own main does for the orca cases; tearDown undoes it. */
  private static void registerLoadReports() throws Exception {
    var provider = Class.forName("io.grpc.testing.integration.CustomBackendMetricsLoadBalancerProvider").getDeclaredConstructor();
    provider.setAccessible(true);
    var made = (io.grpc.LoadBalancerProvider) provider.newInstance();
    io.grpc.LoadBalancerRegistry.getDefaultRegistry().register(made);
    var field = CLIENT.getDeclaredField("customBackendMetricsLoadBalancerProvider");
    field.setAccessible(true);
    field.set(null, made);
  }

  private static String escaped(String text) {
    return text.replace("\\", "\\\\").replace("\"", "'").replaceAll("[\\x00-\\x1f]+", " ");
  }

  private static Class<?> clientClass() {
    try {
      return Class.forName("io.grpc.testing.integration.TestServiceClient");
    } catch (ClassNotFoundException missing) {
      throw new IllegalStateException("gRPC-Java's interop client is not on the class path", missing);
    }
  }
}

// A receiver of webhooks for Java 17 or later, with the JDK only.
//
//     $ WEBHOOK_SECRET=whsec_… java Receiver.java
//
// docs/receivers.md has the variables that it reads. `verify` needs the body and the target as they came. Spring has them,
// too: declare the parameter as @RequestBody byte[] body, never as an object or a String; the target is getRequestURI() and,
// after a ?, getQueryString() of HttpServletRequest, never what UriComponentsBuilder or getParameter makes of them.

import com.sun.net.httpserver.Headers;
import com.sun.net.httpserver.HttpExchange;
import com.sun.net.httpserver.HttpServer;
import java.io.IOException;
import java.net.InetSocketAddress;
import java.nio.ByteBuffer;
import java.nio.channels.FileChannel;
import java.nio.charset.StandardCharsets;
import java.nio.file.FileAlreadyExistsException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.nio.file.StandardOpenOption;
import java.security.GeneralSecurityException;
import java.security.KeyFactory;
import java.security.MessageDigest;
import java.security.PublicKey;
import java.security.Signature;
import java.security.spec.X509EncodedKeySpec;
import java.time.Instant;
import java.util.ArrayList;
import java.util.Base64;
import java.util.HexFormat;
import java.util.List;
import java.util.Map;
import java.util.UUID;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;
import java.util.regex.Pattern;
import javax.crypto.Mac;
import javax.crypto.spec.SecretKeySpec;

public class Receiver {
    /** The header with the signature, what one begins with, the kind of key, the algorithm, whether id and time are signed. */
    record Scheme(String header, String prefix, String kind, String algorithm, boolean isDated) {}

    static final Map<String, Scheme> SCHEMES = Map.of(
        "standard_webhooks_v1", new Scheme("webhook-signature", "v1,", "secret", "HmacSHA256", true),
        "standard_webhooks_v1a", new Scheme("webhook-signature", "v1a,", "Ed25519", "Ed25519", true),
        "rsa_sha256", new Scheme("webhook-signature-rsa", "", "RSA", "SHA256withRSA", true),
        "rsa_sha1", new Scheme("sign", "", "RSA", "SHA1withRSA", false));
    static final Scheme SCHEME = SCHEMES.get(setting("WEBHOOK_SCHEME", "standard_webhooks_v1"));
    static final long TOLERANCE_S = Long.parseLong(setting("WEBHOOK_TOLERANCE_S", "300"));
    static final String LOGIN = setting("WEBHOOK_LOGIN", "");
    static final int MAX_BYTES = 1_000_000;
    static final Pattern PING = Pattern.compile("[\"=&?]type(\"\\s*:\\s*\"|=)endpoint\\.ping(\"|&|$)");

    static class Refused extends Exception {
        static final long serialVersionUID = 1;

        Refused(String reason) {
            super(reason);
        }
    }

    static String setting(String name, String standard) {
        String value = System.getenv(name);
        return value == null || value.isEmpty() ? standard : value;
    }

    static List<byte[]> readSecrets() {
        List<byte[]> secrets = new ArrayList<>();
        for (String text : setting("WEBHOOK_SECRET", "").split(" ")) {
            byte[] secret = Base64.getDecoder().decode(text.replaceFirst("^whsec_", ""));
            if (secret.length < 24) {
                throw new IllegalArgumentException("WEBHOOK_SECRET is not the whsec_… that the registration answered");
            }
            secrets.add(secret);
        }
        return secrets;
    }

    /** The public keys of the file, PEM, one after the other; those of the other kind are left out. */
    static List<PublicKey> readPublicKeys() throws IOException, GeneralSecurityException {
        List<PublicKey> keys = new ArrayList<>();
        String file = Files.readString(Path.of(System.getenv("WEBHOOK_PUBLIC_KEYS")));
        var pems = Pattern.compile("-----BEGIN PUBLIC KEY-----(.*?)-----END", Pattern.DOTALL).matcher(file);
        while (pems.find()) {
            byte[] der = Base64.getMimeDecoder().decode(pems.group(1));
            boolean isEd25519 = der.length == 44; // RFC 8410: 12 bytes that say so, and the key
            if (isEd25519 == SCHEME.kind.equals("Ed25519")) {
                keys.add(KeyFactory.getInstance(SCHEME.kind).generatePublic(new X509EncodedKeySpec(der)));
            }
        }
        return keys;
    }

    static List<byte[]> secrets = List.of();
    static List<PublicKey> publicKeys = List.of();

    /** The id by which the delivery is remembered. Throws unless it is genuine. */
    static String verify(Headers headers, byte[] content) throws Refused, GeneralSecurityException {
        String id = sha256(content);
        byte[] signed = content;
        if (SCHEME.isDated) {
            id = headers.getFirst("webhook-id");
            String timestamp = headers.getFirst("webhook-timestamp");
            if (id == null || timestamp == null || !timestamp.matches("[0-9]{1,15}")) {
                throw new Refused("no id or no time");
            }
            if (Math.abs(Instant.now().getEpochSecond() - Long.parseLong(timestamp)) > TOLERANCE_S) {
                throw new Refused("too old, or from the future");
            }
            byte[] before = (id + "." + timestamp + ".").getBytes(StandardCharsets.UTF_8);
            signed = ByteBuffer.allocate(before.length + content.length).put(before).put(content).array();
        }
        String given = headers.getFirst(SCHEME.header);
        for (String text : (given == null ? "" : given).split(" ")) {
            if (text.startsWith(SCHEME.prefix) && isSignature(decoded(text.substring(SCHEME.prefix.length())), signed)) {
                return id;
            }
        }
        throw new Refused("not signed by a known key");
    }

    static boolean isSignature(byte[] signature, byte[] signed) throws GeneralSecurityException {
        for (byte[] secret : secrets) {
            Mac mac = Mac.getInstance(SCHEME.algorithm);
            mac.init(new SecretKeySpec(secret, SCHEME.algorithm));
            if (MessageDigest.isEqual(mac.doFinal(signed), signature)) {
                return true;
            }
        }
        for (PublicKey key : publicKeys) {
            Signature verifier = Signature.getInstance(SCHEME.algorithm);
            verifier.initVerify(key);
            verifier.update(signed);
            try {
                if (verifier.verify(signature)) {
                    return true;
                }
            } catch (java.security.SignatureException malformed) {
                continue; // such as one of another length
            }
        }
        return false;
    }

    static byte[] decoded(String text) {
        try {
            return Base64.getDecoder().decode(text);
        } catch (IllegalArgumentException malformed) {
            return new byte[0]; // which no key signed
        }
    }

    static String sha256(byte[] content) throws GeneralSecurityException {
        return HexFormat.of().formatHex(MessageDigest.getInstance("SHA-256").digest(content));
    }

    /**
     * Yours: it may take its time, and must bear to be run again after a crash.
     *
     * The content of a GET is its path and query, which begin with a slash; that of a POST is JSON, for which the JDK has no
     * parser: use your framework's, and look at type, mode and whose the event is.
     */
    static void work(String id, byte[] content) throws Exception {
        System.out.println("processed " + id);
    }

    /** Events wait in the directory inbox, a file each. */
    static void remember(String id, byte[] content) throws IOException, GeneralSecurityException {
        String name = sha256(id.getBytes(StandardCharsets.UTF_8));
        Path unfinished = Path.of("inbox", name + "." + UUID.randomUUID());
        Path file = Path.of("inbox", name + ".event");
        byte[] before = (id + "\n").getBytes(StandardCharsets.UTF_8);
        try (var channel = FileChannel.open(unfinished, StandardOpenOption.CREATE_NEW, StandardOpenOption.WRITE)) {
            channel.write(ByteBuffer.allocate(before.length + content.length).put(before).put(content).flip());
            channel.force(true);
        }
        try {
            Files.createLink(file, unfinished);
            WORKER.execute(() -> workOff(file));
        } catch (FileAlreadyExistsException known) {
            return; // it came before
        } finally {
            Files.delete(unfinished);
        }
    }

    static final ExecutorService WORKER = Executors.newSingleThreadExecutor();

    static void workOff(Path file) {
        try {
            String text = Files.readString(file, StandardCharsets.ISO_8859_1);
            int end = text.indexOf('\n');
            work(text.substring(0, end), text.substring(end + 1).getBytes(StandardCharsets.ISO_8859_1));
            Files.createFile(Path.of(file + ".done"));
        } catch (Exception error) {
            error.printStackTrace(); // it stays in the inbox until the next start
        }
    }

    static int receive(String method, Headers headers, byte[] content) throws IOException, GeneralSecurityException {
        try {
            if (method.equals("POST") && content.length > 0 && content[0] == '/') {
                throw new Refused("a GET that was sent again as a POST");
            }
            String text = new String(content, StandardCharsets.UTF_8);
            if (headers.getFirst(SCHEME.header) == null && PING.matcher(text).find()) {
                return 200;
            }
            byte[] login = ("Basic " + Base64.getEncoder().encodeToString(LOGIN.getBytes(StandardCharsets.UTF_8))).getBytes();
            String given = headers.getFirst("authorization");
            if (!LOGIN.isEmpty() && (given == null || !MessageDigest.isEqual(given.getBytes(), login))) {
                return 401;
            }
            remember(verify(headers, content), content);
        } catch (Refused refused) {
            System.out.println("refused " + refused.getMessage());
            return 400;
        }
        return 200;
    }

    static void handle(HttpExchange exchange) {
        try (exchange) {
            int status = 500;
            try {
                String method = exchange.getRequestMethod();
                byte[] body = exchange.getRequestBody().readNBytes(MAX_BYTES + 1);
                // toString() gives the target as it came; getPath() and getQuery() decode it.
                byte[] target = exchange.getRequestURI().toString().getBytes(StandardCharsets.UTF_8);
                status = body.length > MAX_BYTES ? 413
                    : method.equals("POST") ? receive(method, exchange.getRequestHeaders(), body)
                    : method.equals("GET") ? receive(method, exchange.getRequestHeaders(), target)
                    : 405;
            } catch (Exception error) {
                error.printStackTrace(); // not stored: it will be sent again
            }
            exchange.sendResponseHeaders(status, -1);
        } catch (IOException gone) {
            gone.printStackTrace();
        }
    }

    public static void main(String[] arguments) throws Exception {
        if (SCHEME.kind.equals("secret")) {
            secrets = readSecrets();
        } else {
            publicKeys = readPublicKeys();
        }
        Files.createDirectories(Path.of("inbox"));
        try (var files = Files.newDirectoryStream(Path.of("inbox"), "*.event")) {
            for (Path file : files) {
                if (!Files.exists(Path.of(file + ".done"))) {
                    WORKER.execute(() -> workOff(file));
                }
            }
        }
        int port = Integer.parseInt(setting("PORT", "3000"));
        HttpServer server = HttpServer.create(new InetSocketAddress("127.0.0.1", port), 0);
        server.createContext("/", Receiver::handle);
        server.setExecutor(Executors.newCachedThreadPool());
        server.start();
        System.out.println("listening on port " + server.getAddress().getPort());
    }
}

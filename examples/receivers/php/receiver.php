<?php
// A receiver of webhooks for PHP 8.1 or later, with its own extensions only (json, openssl, sodium).
//
//     $ WEBHOOK_SECRET=whsec_… php -S 127.0.0.1:3000 receiver.php    # receives; in production, PHP-FPM does
//     $ php receiver.php                                             # works off what was received
//
// docs/receivers.md has the variables that it reads. verify() needs the body and the target as they came. Laravel has them,
// too: $request->getContent(), never $request->all() or $request->json(); $request->server('REQUEST_URI'), never
// $request->fullUrl(), which sorts and encodes the query anew. Exempt the route from the check of CSRF tokens.

declare(strict_types=1);
ini_set('display_errors', '0');
http_response_code(500); // whatever goes wrong below: it will be sent again

// The header with the signature, what a signature begins with, the kind of key, the hash, whether id and time are signed.
const SCHEMES = [
    'standard_webhooks_v1' => ['webhook-signature', 'v1,', 'secret', 'sha256', true],
    'standard_webhooks_v1a' => ['webhook-signature', 'v1a,', 'ed25519', '', true],
    'rsa_sha256' => ['webhook-signature-rsa', '', 'rsa', 'sha256', true],
    'rsa_sha1' => ['sign', '', 'rsa', 'sha1', false],
];
const TYPES = ['payment.completed', 'payment.failed', 'refund.completed', 'order.updated'];
const MAX_BYTES = 1_000_000;

function setting(string $name, string $default): string
{
    $value = getenv($name);
    return $value === false || $value === '' ? $default : $value;
}

function scheme(): array
{
    return SCHEMES[setting('WEBHOOK_SCHEME', 'standard_webhooks_v1')];
}

/** The endpoint's secrets, or the public keys of the PEM file: an RSA key as it is, an Ed25519 key as its 32 bytes. */
function keys(): array
{
    if (scheme()[2] === 'secret') {
        $decode = fn (string $text) => (string) base64_decode(preg_replace('/^whsec_/', '', $text));
        $secrets = array_map($decode, explode(' ', setting('WEBHOOK_SECRET', '')));
        if (min(array_map('strlen', $secrets)) < 24) {
            error_log('WEBHOOK_SECRET is not the whsec_… that the registration answered');
            exit(1);
        }
        return $secrets;
    }
    preg_match_all('/-----BEGIN.*?-----END PUBLIC KEY-----/s', file_get_contents(getenv('WEBHOOK_PUBLIC_KEYS')), $pems);
    $keys = [];
    foreach ($pems[0] as $pem) {
        $der = base64_decode(preg_replace('/-----.*?-----/', '', $pem));
        $is_ed25519 = strlen($der) === 44; // RFC 8410: 12 bytes that say so, and the key
        if ($is_ed25519 === (scheme()[2] === 'ed25519')) {
            $keys[] = $is_ed25519 ? substr($der, 12) : openssl_pkey_get_public($pem);
        }
    }
    return $keys;
}

/** The id by which the delivery is remembered. Throws unless it is genuine. */
function verify(array $headers, string $content): string
{
    [$header, $prefix, , , $is_dated] = scheme();
    $id = hash('sha256', $content);
    $signed = $content;
    if ($is_dated) {
        $id = $headers['webhook-id'] ?? '';
        $timestamp = $headers['webhook-timestamp'] ?? '';
        $is_recent = ctype_digit($timestamp) && abs(time() - (int) $timestamp) <= (int) setting('WEBHOOK_TOLERANCE_S', '300');
        if ($id === '' || !$is_recent) {
            throw new RuntimeException('no id, too old, or from the future');
        }
        $signed = "$id.$timestamp.$content";
    }
    foreach (explode(' ', $headers[$header] ?? '') as $text) {
        $signature = (string) base64_decode(substr($text, strlen($prefix)));
        foreach (str_starts_with($text, $prefix) ? keys() : [] as $key) {
            if (is_signature($signature, $signed, $key)) {
                return $id;
            }
        }
    }
    throw new RuntimeException('not signed by a known key');
}

function is_signature(string $signature, string $signed, mixed $key): bool
{
    [, , $kind, $hash] = scheme();
    return match ($kind) {
        'secret' => hash_equals(hash_hmac($hash, $signed, $key, true), $signature),
        'ed25519' => strlen($signature) === 64 && sodium_crypto_sign_verify_detached($signature, $signed, $key),
        'rsa' => openssl_verify($signed, $signature, $key, $hash) === 1,
    };
}

/** The content of a GET is its path and query, which begin with a slash; JSON never does. */
function event_of(string $content): array
{
    if (!str_starts_with($content, '/')) {
        return (array) json_decode($content, true, 512, JSON_THROW_ON_ERROR);
    }
    parse_str(explode('?', $content, 2)[1] ?? '', $event);
    return $event;
}

/** Yours: it may take its time, and must bear to be run again after a crash. */
function work(string $id, array $event): void
{
    if (is_wanted($event)) {
        echo "processed $id\n";
    }
}

function is_wanted(array $event): bool
{
    $mode = setting('WEBHOOK_MODE', 'live');
    $checkout = setting('CHECKOUT_ID', '');
    $ours = $checkout === '' || ($event['data']['metadata']['checkoutId'] ?? null) === $checkout;
    return in_array($event['type'], TYPES, true) && ($event['mode'] ?? $mode) === $mode && $ours; // a GET has no mode
}

/** Events wait in the directory inbox, a file each. */
function remember(string $id, string $content): void
{
    $name = 'inbox/' . hash('sha256', $id);
    $unfinished = $name . '.' . bin2hex(random_bytes(8));
    $file = fopen($unfinished, 'xb');
    fwrite($file, "$id\n$content");
    fsync($file);
    fclose($file);
    $is_new = @link($unfinished, "$name.event"); // fails for what came before
    unlink($unfinished);
    if (!$is_new && !file_exists("$name.event")) {
        throw new ErrorException('the inbox cannot be written');
    }
}

function work_off(): void
{
    foreach (glob('inbox/*.event') as $file) {
        if (file_exists("$file.done")) {
            continue;
        }
        try {
            [$id, $content] = explode("\n", file_get_contents($file), 2);
            work($id, event_of($content));
            touch("$file.done");
        } catch (Throwable $error) {
            error_log((string) $error); // it stays in the inbox
        }
    }
}

function receive(string $method, string $target, array $headers, string $body): int
{
    $login = setting('WEBHOOK_LOGIN', '');
    $given = $headers['authorization'] ?? '';
    try {
        $content = $method === 'GET' ? $target : $body;
        if ($method === 'POST' && str_starts_with($content, '/')) {
            throw new RuntimeException('a GET that was sent again as a POST');
        }
        if (!isset($headers[scheme()[0]]) && (event_of($content)['type'] ?? '') === 'endpoint.ping') {
            return 200;
        }
        if ($login !== '' && !hash_equals('Basic ' . base64_encode($login), $given)) {
            return 401;
        }
        remember(verify($headers, $content), $content);
    } catch (RuntimeException | JsonException $error) {
        error_log('refused ' . $error->getMessage());
        return 400;
    }
    return 200;
}

keys(); // do not start without
is_dir('inbox') || @mkdir('inbox');
if (PHP_SAPI === 'cli') {
    while (true) {
        work_off();
        usleep(200_000);
    }
}
$method = $_SERVER['REQUEST_METHOD'];
if ((int) ($_SERVER['CONTENT_LENGTH'] ?? 0) > MAX_BYTES) {
    http_response_code(413);
} elseif ($method !== 'GET' && $method !== 'POST') {
    http_response_code(405);
} else {
    $headers = array_change_key_case(getallheaders(), CASE_LOWER);
    http_response_code(receive($method, $_SERVER['REQUEST_URI'], $headers, file_get_contents('php://input')));
}

// A receiver of webhooks for Go 1.19 or later, with the standard library only.
//
//	$ WEBHOOK_SECRET=whsec_… go run receiver.go
//
// docs/receivers.md has the variables that it reads. verify needs the body and the target as they came. net/http has them:
// read the body with io.ReadAll before anything decodes it, and take r.RequestURI, never r.URL.String(), which encodes anew.
// http.ServeMux redirects paths with a double slash or two dots; a handler without it, as here, gets them as they are.
package main

import (
	"bytes"
	"crypto"
	"crypto/ed25519"
	"crypto/hmac"
	"crypto/rsa"
	"crypto/sha1"
	"crypto/sha256"
	"crypto/subtle"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// A scheme is the header with the signature, what a signature begins with, and whether id and time are signed.
type scheme struct {
	header, prefix string
	isDated        bool
	isSignature    func(signature, signed []byte) bool
}

var schemes = map[string]scheme{
	"standard_webhooks_v1":  {"webhook-signature", "v1,", true, isHMAC},
	"standard_webhooks_v1a": {"webhook-signature", "v1a,", true, isEd25519},
	"rsa_sha256":            {"webhook-signature-rsa", "", true, isRSASHA256},
	"rsa_sha1":              {"sign", "", false, isRSASHA1},
}

const maxBytes = 1_000_000

var (
	chosen      = setting("WEBHOOK_SCHEME", "standard_webhooks_v1")
	used        scheme
	toleranceS  int64
	mode        = setting("WEBHOOK_MODE", "live")
	checkoutID  = os.Getenv("CHECKOUT_ID")
	login       = os.Getenv("WEBHOOK_LOGIN")
	types       = map[string]bool{"payment.completed": true, "payment.failed": true, "refund.completed": true, "order.updated": true}
	secrets     [][]byte
	publicKeys  []any
	waiting     = make(chan string, 1000)
	errUnsigned = errors.New("not signed by a known key")
	errDated    = errors.New("no id, too old, or from the future")
)

func setting(name, standard string) string {
	if value := os.Getenv(name); value != "" {
		return value
	}
	return standard
}

func readKeys() {
	if chosen == "standard_webhooks_v1" {
		for _, text := range strings.Split(os.Getenv("WEBHOOK_SECRET"), " ") {
			secret, err := base64.StdEncoding.DecodeString(strings.TrimPrefix(text, "whsec_"))
			if err != nil || len(secret) < 24 {
				log.Fatal("WEBHOOK_SECRET is not the whsec_… that the registration answered")
			}
			secrets = append(secrets, secret)
		}
		return
	}
	rest, err := os.ReadFile(os.Getenv("WEBHOOK_PUBLIC_KEYS"))
	if err != nil {
		log.Fatal(err)
	}
	for block, rest := pem.Decode(rest); block != nil; block, rest = pem.Decode(rest) {
		key, err := x509.ParsePKIXPublicKey(block.Bytes)
		if err != nil {
			log.Fatal(err)
		}
		publicKeys = append(publicKeys, key)
	}
}

// verify returns the id by which the delivery is remembered, or an error unless it is genuine.
func verify(headers http.Header, content []byte) (string, error) {
	id, signed := hash(content), content
	if used.isDated {
		id = headers.Get("webhook-id")
		timestamp := headers.Get("webhook-timestamp")
		seconds, err := strconv.ParseInt(timestamp, 10, 64)
		age := time.Now().Unix() - seconds
		if id == "" || err != nil || age > toleranceS || age < -toleranceS {
			return "", errDated
		}
		signed = append([]byte(id+"."+timestamp+"."), content...)
	}
	for _, text := range strings.Split(headers.Get(used.header), " ") {
		signature, err := base64.StdEncoding.DecodeString(strings.TrimPrefix(text, used.prefix))
		if err == nil && strings.HasPrefix(text, used.prefix) && used.isSignature(signature, signed) {
			return id, nil
		}
	}
	return "", errUnsigned
}

func isHMAC(signature, signed []byte) bool {
	for _, secret := range secrets {
		mac := hmac.New(sha256.New, secret)
		mac.Write(signed)
		if hmac.Equal(mac.Sum(nil), signature) {
			return true
		}
	}
	return false
}

func isEd25519(signature, signed []byte) bool {
	for _, key := range publicKeys {
		if key, ok := key.(ed25519.PublicKey); ok && ed25519.Verify(key, signed, signature) {
			return true
		}
	}
	return false
}

func isRSASHA256(signature, signed []byte) bool {
	digest := sha256.Sum256(signed)
	return isRSA(crypto.SHA256, digest[:], signature)
}

func isRSASHA1(signature, signed []byte) bool {
	digest := sha1.Sum(signed)
	return isRSA(crypto.SHA1, digest[:], signature)
}

func isRSA(algorithm crypto.Hash, digest, signature []byte) bool {
	for _, key := range publicKeys {
		if key, ok := key.(*rsa.PublicKey); ok && rsa.VerifyPKCS1v15(key, algorithm, digest, signature) == nil {
			return true
		}
	}
	return false
}

func hash(content []byte) string {
	digest := sha256.Sum256(content)
	return hex.EncodeToString(digest[:])
}

type event struct {
	Type string
	Mode string
	Data any
}

// eventOf reads an event. The content of a GET is its path and query, which begin with a slash; JSON never does.
func eventOf(content []byte) (found event, err error) {
	if !bytes.HasPrefix(content, []byte("/")) {
		err = json.Unmarshal(content, &found)
		return found, err
	}
	_, query, _ := strings.Cut(string(content), "?")
	values, err := url.ParseQuery(query)
	if said := values["type"]; len(said) > 0 {
		found.Type = said[len(said)-1] // the URL may have one of its own, which stands before ours
	}
	found.Mode = mode // a GET does not say it
	return found, err
}

// work is yours: it may take its time, and must bear to be run again after a crash.
func work(id string, what event) error {
	if isWanted(what) {
		fmt.Println("processed", id)
	}
	return nil
}

func isWanted(what event) bool {
	data, _ := what.Data.(map[string]any)
	metadata, _ := data["metadata"].(map[string]any)
	ours := checkoutID == "" || metadata["checkoutId"] == checkoutID
	return types[what.Type] && what.Mode == mode && ours
}

// remember keeps an event in the directory inbox, a file each.
func remember(id string, content []byte) error {
	name := filepath.Join("inbox", hash([]byte(id))+".event")
	file, err := os.CreateTemp("inbox", "unfinished")
	if err != nil {
		return err
	}
	defer os.Remove(file.Name())
	defer file.Close()
	if _, err := file.Write(append([]byte(id+"\n"), content...)); err != nil {
		return err
	}
	if err := file.Sync(); err != nil {
		return err
	}
	err = os.Link(file.Name(), name)
	if errors.Is(err, fs.ErrExist) {
		return nil // it came before
	}
	if err == nil {
		select {
		case waiting <- name:
		default: // too many wait: the next start finds it in the inbox
		}
	}
	return err
}

func workOff() {
	for name := range waiting {
		text, err := os.ReadFile(name)
		if err == nil {
			id, content, _ := bytes.Cut(text, []byte("\n"))
			var what event
			if what, err = eventOf(content); err == nil {
				err = work(string(id), what)
			}
		}
		if err == nil {
			err = os.WriteFile(name+".done", nil, 0o600)
		}
		if err != nil {
			log.Print(err) // it stays in the inbox until the next start
		}
	}
}

func receive(w http.ResponseWriter, r *http.Request) {
	var content []byte
	switch r.Method {
	case http.MethodGet:
		content = []byte(r.RequestURI)
	case http.MethodPost:
		body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxBytes))
		if err != nil {
			w.WriteHeader(http.StatusRequestEntityTooLarge)
			return
		}
		content = body
		if bytes.HasPrefix(body, []byte("/")) {
			log.Print("refused a GET that was sent again as a POST")
			w.WriteHeader(http.StatusBadRequest)
			return
		}
	default:
		w.WriteHeader(http.StatusMethodNotAllowed)
		return
	}
	if r.Header.Get(used.header) == "" {
		if what, err := eventOf(content); err == nil && what.Type == "endpoint.ping" {
			return
		}
	}
	expected := "Basic " + base64.StdEncoding.EncodeToString([]byte(login))
	if login != "" && subtle.ConstantTimeCompare([]byte(r.Header.Get("authorization")), []byte(expected)) == 0 {
		w.WriteHeader(http.StatusUnauthorized)
		return
	}
	id, err := verify(r.Header, content)
	if err != nil {
		log.Print("refused ", err)
		w.WriteHeader(http.StatusBadRequest)
		return
	}
	if err := remember(id, content); err != nil {
		log.Print(err) // it will be sent again
		w.WriteHeader(http.StatusInternalServerError)
	}
}

func main() {
	var known bool
	if used, known = schemes[chosen]; !known {
		log.Fatal("WEBHOOK_SCHEME is not a scheme: ", chosen)
	}
	var err error
	if toleranceS, err = strconv.ParseInt(setting("WEBHOOK_TOLERANCE_S", "300"), 10, 64); err != nil {
		log.Fatal(err)
	}
	readKeys()
	if err := os.MkdirAll("inbox", 0o700); err != nil {
		log.Fatal(err)
	}
	names, err := filepath.Glob("inbox/*.event")
	if err != nil {
		log.Fatal(err)
	}
	listener, err := net.Listen("tcp", "127.0.0.1:"+setting("PORT", "3000"))
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println("listening on port", listener.Addr().(*net.TCPAddr).Port)
	go workOff()
	go func() {
		for _, name := range names {
			if _, err := os.Stat(name + ".done"); errors.Is(err, fs.ErrNotExist) {
				waiting <- name
			}
		}
	}()
	server := http.Server{Handler: http.HandlerFunc(receive), ReadTimeout: 20 * time.Second}
	log.Fatal(server.Serve(listener))
}

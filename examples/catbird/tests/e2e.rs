//! Real MLS clients over the server: they talk, race, join by claimed key packages, and catch a forged
//! one.

use catbird_db::proof::{self, Consistency, LogView, Proof, TreeHead};
use catbird_db::transparency::{self, Log, Options};
use catbird_db::{Config, Database};
use openmls::prelude::tls_codec::{Deserialize as _, Serialize as _};
use openmls::prelude::*;
use openmls_basic_credential::SignatureKeyPair;
use openmls_rust_crypto::OpenMlsRustCrypto;
use serde_json::{Value, json};
use serde_with::base64::Base64;
use serde_with::{DeserializeAs, SerializeAs};
use sqlx::ConnectOptions;
use sqlx::postgres::{PgConnectOptions, PgConnection};
use sqlx::{AssertSqlSafe, Connection};
use std::str::FromStr;
use std::time::Duration;
use tokio::runtime::Runtime;
use uuid::Uuid;

const SUITE: Ciphersuite = Ciphersuite::MLS_128_DHKEMX25519_AES128GCM_SHA256_Ed25519;

/// A database and the server over it, until the test ends.
struct Server {
    runtime: Runtime,
    db: Database,
    address: String,
    name: String,
    cluster: PgConnectOptions,
}

impl Server {
    fn start() -> Server {
        let url = std::env::var("TEST_DATABASE_URL").expect(
            "TEST_DATABASE_URL names a server to create databases on: use `make test-catbird`",
        );
        let runtime = Runtime::new().unwrap();
        let cluster = PgConnectOptions::from_str(&url).unwrap();
        let name = format!("catbird_test_{}", Uuid::new_v4().simple());
        runtime.block_on(administer(&cluster, format!("CREATE DATABASE {name}")));
        let url = cluster.clone().database(&name).to_url_lossy();
        let (db, listener) = runtime.block_on(async {
            let db = Database::connect(&Config::new(url)).await.unwrap();
            db.migrate().await.unwrap();
            sqlx::query("CREATE EXTENSION merkle_log")
                .execute(&mut *db.connection().await.unwrap())
                .await
                .unwrap();
            let mut transaction = db.begin_transaction().await.unwrap();
            transparency::register(&mut transaction, Options::default())
                .await
                .unwrap();
            transaction.commit().await.unwrap();
            (
                db,
                tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap(),
            )
        });
        let address = format!("http://{}", listener.local_addr().unwrap());
        let router = catbird_server::router(db.clone());
        runtime.spawn(async move { axum::serve(listener, router).await });
        Server {
            runtime,
            db,
            address,
            name,
            cluster,
        }
    }

    /// What merkle_log's worker does in the background elsewhere.
    fn log(&self) {
        for log in [Log::Messages, Log::KeyPackages] {
            self.runtime
                .block_on(transparency::log_now(&self.db, log))
                .unwrap();
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let drop = format!("DROP DATABASE {} WITH (FORCE)", self.name);
        self.runtime.block_on(administer(&self.cluster, drop));
    }
}

async fn administer(server: &PgConnectOptions, sql: String) {
    let mut connection = PgConnection::connect_with(server).await.unwrap();
    sqlx::raw_sql(AssertSqlSafe(sql))
        .execute(&mut connection)
        .await
        .unwrap();
}

/// Someone with MLS keys, a place in one conversation, and a view of the log of key packages.
struct Client {
    did: String,
    server: String,
    crypto: OpenMlsRustCrypto,
    keys: SignatureKeyPair,
    credential: CredentialWithKey,
    convo: Uuid,
    group: Option<MlsGroup>,
    cursor: Option<String>,
    packages: Option<LogView>,
    /// What they have read: sender and text.
    read: Vec<(String, String)>,
}

impl Client {
    fn new(server: &Server, name: &str, convo: Uuid) -> Client {
        Client::impersonating(server, &format!("did:plc:{name}"), convo)
    }

    fn impersonating(server: &Server, did: &str, convo: Uuid) -> Client {
        let crypto = OpenMlsRustCrypto::default();
        let keys = SignatureKeyPair::new(SUITE.signature_algorithm()).unwrap();
        keys.store(crypto.storage()).unwrap();
        let credential = CredentialWithKey {
            credential: BasicCredential::new(did.as_bytes().to_vec()).into(),
            signature_key: keys.to_public_vec().into(),
        };
        Client {
            did: did.to_owned(),
            server: server.address.clone(),
            crypto,
            keys,
            credential,
            convo,
            group: None,
            cursor: None,
            packages: None,
            read: Vec::new(),
        }
    }

    fn request(&self, path: &str, body: Option<Value>) -> Result<Value, (u16, Value)> {
        let url = format!("{}{path}", self.server);
        let agent: ureq::Agent = ureq::Agent::config_builder()
            .http_status_as_error(false)
            .timeout_global(Some(Duration::from_secs(30)))
            .build()
            .into();
        let mut response = match body {
            Some(body) => agent.post(&url).header("x-did", &self.did).send_json(body),
            None => agent.get(&url).header("x-did", &self.did).call(),
        }
        .unwrap();
        let status = response.status().as_u16();
        let body = response.body_mut().read_json().unwrap();
        if status == 200 {
            Ok(body)
        } else {
            Err((status, body))
        }
    }

    fn get<T: serde::de::DeserializeOwned>(&self, path: &str) -> T {
        serde_json::from_value(self.request(path, None).unwrap()).unwrap()
    }

    fn post(&self, path: &str, body: Value) -> Result<Value, (u16, Value)> {
        self.request(path, Some(body))
    }

    fn key_package(&self) -> Vec<u8> {
        let bundle = KeyPackage::builder()
            .build(SUITE, &self.crypto, &self.keys, self.credential.clone())
            .unwrap();
        bundle.key_package().tls_serialize_detached().unwrap()
    }

    fn publish_key_packages(&self, count: usize) {
        for _ in 0..count {
            let expires_at = "2100-01-01T00:00:00Z";
            let package = json!({ "cipher_suite": u16::from(SUITE), "key_data": base64(&self.key_package()), "expires_at": expires_at });
            self.post("/key_packages", package).unwrap();
        }
    }

    fn create_conversation(&mut self) {
        self.post("/conversations", json!({ "id": self.convo }))
            .unwrap();
        let config = MlsGroupCreateConfig::builder()
            .ciphersuite(SUITE)
            .use_ratchet_tree_extension(true)
            .build();
        let id = GroupId::from_slice(self.convo.as_bytes());
        let group = MlsGroup::new_with_group_id(
            &self.crypto,
            &self.keys,
            &config,
            id,
            self.credential.clone(),
        );
        self.group = Some(group.unwrap());
    }

    /// A key package of someone else, if the log has it.
    fn claim(&mut self, did: &str) -> Result<KeyPackage, proof::Error> {
        let suite = u16::from(SUITE);
        let given = self
            .post(
                &format!("/key_packages/{did}/{suite}/claim"),
                json!({ "id": Uuid::new_v4() }),
            )
            .unwrap();
        let key_data = bytes(&given["key_data"]);
        // The log only grew since this client last looked. The first time it has to take what it sees.
        let head: TreeHead = self.get("/logs/key_packages/head");
        let view = match self.packages.take() {
            None => LogView::new(head),
            Some(mut view) => {
                let since = format!(
                    "/logs/key_packages/consistency?old={}",
                    view.head().tree_size
                );
                view.advance(&self.get::<Consistency>(&since))?;
                view
            }
        };
        let size = view.head().tree_size;
        let proof: Proof = self.get(&format!(
            "/key_packages/{did}/{}/proof?tree_size={size}",
            given["id"]
        ));
        let accepted = view.accept(&proof.head);
        self.packages = Some(view);
        accepted?;
        proof.verify_key_package(&proof::KeyPackage {
            did,
            cipher_suite: suite,
            key_data: &key_data,
        })?;
        let package = KeyPackageIn::tls_deserialize_exact(&key_data).unwrap();
        let package = package
            .validate(self.crypto.crypto(), ProtocolVersion::Mls10)
            .unwrap();
        let identity = package.leaf_node().credential().serialized_content();
        assert_eq!(identity, did.as_bytes());
        Ok(package)
    }

    /// Adds someone by a commit; on a lost race, says which epoch it is.
    fn add(&mut self, did: &str, package: KeyPackage) -> Result<(), u64> {
        let group = self.group.as_mut().unwrap();
        let epoch = group.epoch().as_u64();
        let (commit, welcome, _) = group
            .add_members(&self.crypto, &self.keys, &[package])
            .unwrap();
        let body = json!({
            "id": Uuid::now_v7(), "epoch": epoch, "ciphertext": base64(&commit.to_bytes().unwrap()), "added": [did],
            "welcome": { "id": Uuid::now_v7(), "ciphertext": base64(&welcome.to_bytes().unwrap()) },
        });
        self.commit(body)
    }

    fn commit(&mut self, body: Value) -> Result<(), u64> {
        let sent = self.post(&format!("/conversations/{}/commits", self.convo), body);
        let group = self.group.as_mut().unwrap();
        match sent {
            Ok(_) => {
                group.merge_pending_commit(&self.crypto).unwrap();
                Ok(())
            }
            Err((409, conflict)) => {
                group.clear_pending_commit(self.crypto.storage()).unwrap();
                Err(conflict["current_epoch"].as_u64().unwrap())
            }
            Err(other) => panic!("{other:?}"),
        }
    }

    fn send(&mut self, text: &str) {
        let group = self.group.as_mut().unwrap();
        let epoch = group.epoch().as_u64();
        let sealed = group
            .create_message(&self.crypto, &self.keys, text.as_bytes())
            .unwrap();
        let body = json!({ "id": Uuid::now_v7(), "epoch": epoch, "ciphertext": base64(&sealed.to_bytes().unwrap()) });
        let path = format!("/conversations/{}/messages", self.convo);
        let first = self.post(&path, body.clone()).unwrap();
        // The answer got lost, so it is sent again.
        let again = self.post(&path, body).unwrap();
        assert_eq!(
            (first["sent_at"].clone(), &again["duplicate"]),
            (again["sent_at"].clone(), &json!(true))
        );
    }

    /// Processes what came since the last time.
    fn catch_up(&mut self) {
        loop {
            let after = self
                .cursor
                .as_ref()
                .map(|cursor| format!("&after={cursor}"))
                .unwrap_or_default();
            let path = format!("/conversations/{}/messages?limit=3{after}", self.convo);
            let Value::Array(messages) = self.get(&path) else {
                panic!("no list")
            };
            if messages.is_empty() {
                return;
            }
            for message in messages {
                self.cursor = Some(message["cursor"].as_str().unwrap().to_owned());
                self.process(&message);
            }
        }
    }

    fn process(&mut self, message: &Value) {
        let sealed = MlsMessageIn::tls_deserialize_exact(bytes(&message["ciphertext"])).unwrap();
        let kind = message["message_type"].as_str().unwrap();
        let Some(group) = &mut self.group else {
            if kind == "welcome" {
                let config = MlsGroupJoinConfig::builder()
                    .use_ratchet_tree_extension(true)
                    .build();
                let MlsMessageBodyIn::Welcome(welcome) = sealed.extract() else {
                    panic!("no welcome")
                };
                let joined =
                    StagedWelcome::new_from_welcome(&self.crypto, &config, welcome, None).unwrap();
                self.group = Some(joined.into_group(&self.crypto).unwrap());
            }
            return;
        };
        // Its own it knows, and a welcome is for others.
        if message["sender"] == json!(self.did) || kind == "welcome" {
            return;
        }
        let sealed = sealed.try_into_protocol_message().unwrap();
        let opened = group.process_message(&self.crypto, sealed).unwrap();
        let sender = String::from_utf8(opened.credential().serialized_content().to_vec()).unwrap();
        assert_eq!(json!(sender), message["sender"]);
        match opened.into_content() {
            ProcessedMessageContent::ApplicationMessage(text) => {
                let text = String::from_utf8(text.into_bytes()).unwrap();
                self.read.push((sender, text));
            }
            ProcessedMessageContent::StagedCommitMessage(commit) => {
                group.merge_staged_commit(&self.crypto, *commit).unwrap();
            }
            _ => panic!("nothing else was sent"),
        }
    }

    fn epoch(&self) -> u64 {
        self.group.as_ref().unwrap().epoch().as_u64()
    }

    fn last(&self) -> (&str, &str) {
        let (sender, text) = self.read.last().unwrap();
        (sender, text)
    }
}

fn base64(bytes: &[u8]) -> String {
    let text = <Base64 as SerializeAs<&[u8]>>::serialize_as(&bytes, serde_json::value::Serializer);
    text.unwrap().as_str().unwrap().to_owned()
}

fn bytes(text: &Value) -> Vec<u8> {
    <Base64 as DeserializeAs<Vec<u8>>>::deserialize_as(text).unwrap()
}

#[test]
fn clients_talk_race_join_and_catch_a_forged_key_package() {
    let server = Server::start();
    let convo = Uuid::now_v7();
    let [mut alice, mut bob, mut carol] =
        ["alice", "bob", "carol"].map(|name| Client::new(&server, name, convo));
    bob.publish_key_packages(3);
    carol.publish_key_packages(3);
    server.log();

    // Two exchange messages.
    alice.create_conversation();
    let package = alice.claim(&bob.did).unwrap();
    alice.add(&bob.did, package).unwrap();
    bob.catch_up();
    alice.send("hello, Bob");
    bob.catch_up();
    assert_eq!(bob.last(), ("did:plc:alice", "hello, Bob"));
    bob.send("hello, Alice");
    alice.catch_up();
    assert_eq!(alice.last(), ("did:plc:bob", "hello, Alice"));

    // Both change the group at once: one wins, the other learns the epoch, catches up and tries again.
    let package = alice.claim(&carol.did).unwrap();
    let epoch = bob.epoch();
    let update = bob.group.as_mut().unwrap();
    let update = update
        .self_update(&bob.crypto, &bob.keys, LeafNodeParameters::default())
        .unwrap();
    let update = json!({ "id": Uuid::now_v7(), "epoch": epoch, "ciphertext": base64(&update.commit().to_bytes().unwrap()) });
    alice.add(&carol.did, package).unwrap();
    assert_eq!(bob.commit(update), Err(epoch + 1));
    bob.catch_up();
    assert_eq!(bob.epoch(), epoch + 1);

    // The third, who joined by a claimed key package, hears and is heard.
    carol.catch_up();
    carol.send("and me");
    for listener in [&mut alice, &mut bob] {
        listener.catch_up();
        assert_eq!(listener.last(), ("did:plc:carol", "and me"));
    }
    bob.send("welcome");
    for listener in [&mut alice, &mut carol] {
        listener.catch_up();
        assert_eq!(listener.last(), ("did:plc:bob", "welcome"));
    }
    assert_eq!(
        carol.read.len(),
        1,
        "what was said before she came is not hers"
    );

    // Whoever received a message can prove it.
    server.log();
    let Value::Array(messages) = carol.get(&format!("/conversations/{convo}/messages")) else {
        panic!()
    };
    for message in &messages {
        let id = message["id"].as_str().unwrap();
        let proof: Proof = carol.get(&format!("/conversations/{convo}/messages/{id}/proof"));
        let sent_at: chrono::DateTime<chrono::Utc> =
            serde_json::from_value(message["sent_at"].clone()).unwrap();
        let ciphertext = bytes(&message["ciphertext"]);
        let received = proof::Message {
            convo_id: convo,
            id: id.parse().unwrap(),
            sender: message["sender"].as_str().unwrap(),
            message_type: message["message_type"].as_str().unwrap(),
            epoch: message["epoch"].as_u64().unwrap(),
            ciphertext: &ciphertext,
            sent_at: sent_at.timestamp_micros(),
        };
        proof.verify_message(&received).unwrap();
    }

    // An outsider is told nothing.
    let mallory = Client::new(&server, "mallory", convo);
    let Value::Array(nothing) = mallory.get(&format!("/conversations/{convo}/messages")) else {
        panic!()
    };
    assert!(nothing.is_empty());
    let sent = mallory.post(
        &format!("/conversations/{convo}/messages"),
        json!({ "id": Uuid::now_v7(), "epoch": 2, "ciphertext": "eA==" }),
    );
    assert_eq!(sent.unwrap_err().0, 403);

    // The server's operator puts a package of Mallory's in the place of Carol's next one. As MLS goes it is
    // in order: it is signed, and says it is Carol's.
    let forged = Client::impersonating(&server, &carol.did, convo).key_package();
    server.runtime.block_on(async {
        let mut connection = server.db.connection().await.unwrap();
        let off = sqlx::raw_sql("ALTER TABLE key_packages DISABLE TRIGGER USER");
        off.execute(&mut *connection).await.unwrap();
        let swap = sqlx::query("UPDATE key_packages SET key_data = $1 WHERE id = (SELECT min(id) FROM key_packages WHERE did = 'did:plc:carol' AND consumed_at IS NULL)");
        swap.bind(&forged).execute(&mut *connection).await.unwrap();
        let on = sqlx::raw_sql("ALTER TABLE key_packages ENABLE TRIGGER USER");
        on.execute(&mut *connection).await.unwrap();
    });
    assert_eq!(
        bob.claim(&carol.did).unwrap_err(),
        proof::Error::Differs { column: "digest" }
    );
    // Without the log she would have been let in.
    let forged = KeyPackageIn::tls_deserialize_exact(&forged).unwrap();
    forged
        .validate(bob.crypto.crypto(), ProtocolVersion::Mls10)
        .unwrap();
    // The next one is Carol's own.
    assert!(bob.claim(&carol.did).is_ok());
}

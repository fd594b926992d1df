//! The files that somebody deploys with: what they say to type can be typed twice, and what they name is what was tried.

use std::{fs, os::unix::fs::PermissionsExt, path::Path};

use support::processes::{command, run};

fn file(name: &str) -> String {
    fs::read_to_string(Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/..")).join(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
}

/// The line that makes `.env`, as a file shows it.
fn line(name: &str) -> String {
    let text = file(name);
    let lines = text.lines().map(|line| line.trim_start_matches(['#', ' ']));
    let found: Vec<_> = lines.filter(|line| line.starts_with("(umask") && line.contains("> .env")).collect();
    assert_eq!(found.len(), 1, "{name} shows how to make .env, once");
    found[0].to_owned()
}

#[tokio::test]
async fn the_line_that_makes_the_secrets_makes_them_once() {
    let documented = line("docker-compose.yml");
    assert_eq!(line("README.md"), documented, "the same everywhere");
    for shell in ["sh", "bash"] {
        let folder = tempfile::tempdir().expect("a folder");
        let type_it = async || {
            let mut command = command(shell, &["-c", &documented], &[]);
            command.current_dir(folder.path());
            run(command).await
        };
        let path = folder.path().join(".env");
        let (status, _, errors) = type_it().await;
        assert!(status.success(), "{errors}");
        let made = fs::read_to_string(&path).expect(".env");
        let names: Vec<_> = made.lines().filter_map(|line| line.split_once('=')).filter(|(_, value)| value.len() == 64).collect();
        assert_eq!(names.len(), 3, "{made}");
        assert_eq!(fs::metadata(&path).expect(".env").permissions().mode() & 0o777, 0o600);
        let (status, _, errors) = type_it().await;
        assert!(!status.success() && errors.contains(".env"), "the second time it refuses: {errors}");
        assert_eq!(fs::read_to_string(&path).expect(".env"), made, "{shell} has overwritten the secrets");
    }
}

#[test]
fn every_image_is_named_by_its_version() {
    let (compose, dockerfile) = (file("docker-compose.yml"), file("Dockerfile"));
    let of_services = compose.lines().filter_map(|line| line.trim().strip_prefix("image: "));
    let bases = dockerfile.lines().filter_map(|line| line.strip_prefix("FROM ")?.split(' ').next());
    // Ours is built here, and `scratch` is nothing.
    let images: Vec<_> = of_services.chain(bases).filter(|image| !matches!(*image, "posthaste" | "scratch")).collect();
    assert!(images.len() >= 2, "{images:?}");
    for image in images {
        let version = image.split_once(':').map_or("", |(_, tag)| tag.split('-').next().unwrap_or(tag));
        let parts: Vec<_> = version.split('.').collect();
        let is_exact = parts.len() >= 2 && parts.iter().all(|part| part.parse::<u32>().is_ok());
        assert!(is_exact || image.contains("@sha256:"), "{image} is another program tomorrow");
    }
}

use clap::CommandFactory as _;

use super::*;

fn parse(args: &[&str]) -> Result<Cli, clap::Error> {
    Cli::try_parse_from(std::iter::once("levada").chain(args.iter().copied()))
}

#[test]
fn the_commands_are_well_formed() {
    Cli::command().debug_assert();
}

#[test]
fn every_option_is_a_flag_of_serve() {
    let args = [
        "serve",
        "--listen",
        "127.0.0.1:0",
        "--leave",
        "--manifests",
        "a",
        "--manifests",
        "b",
        "--kafka-properties",
        "x=y",
        "--admin-open=false",
    ];
    let Command::Serve(args) = parse(&args).unwrap().command else {
        panic!("another command");
    };
    let config = args.load_for_test();
    assert!(config.leave);
    assert!(!config.admin.open);
    assert_eq!(config.manifests.len(), 2);
    assert_eq!(config.kafka.properties["x"], "y");
    assert_eq!(config.listen.port(), 0);
}

#[test]
fn wrong_arguments_are_usage_errors() {
    for args in [
        &["serve", "--nothing"][..],
        &["send", "--count", "0"],
        &["send", "--channel", "A/B"],
        &["send", "--attribute", "id=7"],
        &["send", "--url", "ftp://x"],
        &["listen", "--answer", "99"],
        &["listen", "--delay", "5"],
        &["get", "nothing"],
        &["describe", "channel"],
    ] {
        let error = parse(args).unwrap_err();
        assert!(error.use_stderr(), "{args:?}");
    }
}

#[test]
fn every_command_has_an_example_in_its_help() {
    for command in Cli::command().get_subcommands() {
        let bare = matches!(command.get_name(), "man" | "help");
        assert!(
            bare || command.get_after_help().is_some(),
            "{}",
            command.get_name()
        );
        assert!(command.get_about().is_some(), "{}", command.get_name());
    }
}

#[test]
fn completions_and_pages_are_written() {
    let (console, text) = console::captured();
    for args in [
        &["completions", "bash"][..],
        &["completions", "zsh"],
        &["man"],
    ] {
        parse(args).unwrap().command.run(&console).unwrap();
    }
    assert!(text().contains("_levada"));
    assert!(text().contains(".TH levada 1"));
}

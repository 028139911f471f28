//! The command line as a user meets it.

use clap::CommandFactory as _;

use super::Cli;
use crate::config::Config;

fn help_of(subcommand: &str) -> String {
    let mut cli = Cli::command();
    cli.find_subcommand_mut(subcommand).unwrap().render_long_help().to_string()
}

#[test]
fn the_command_line_is_sound() {
    Cli::command().debug_assert();
}

#[test]
fn help_tells_the_defaults_that_are_in_force() {
    let (help, config) = (help_of("run"), Config::default());
    let address = config.web.listen_address[0].to_string();
    let deaths = config.ledger.max_deaths.get().to_string();
    let records = config.queue.records.get().to_string();
    assert_eq!(config.probe.ring_bytes.get(), 2 << 20);
    assert_eq!(config.shutdown.deadline.get().as_secs(), 5);
    let sink = config.log_sink.to_string();
    for default in [
        &address,
        &deaths,
        &records,
        &sink,
        "2MiB",
        "5s",
        config.web.telemetry_path.as_str(),
        "/sys/fs/cgroup",
    ] {
        assert!(help.contains(&format!("[default: {default}]")), "{default}");
    }
}

#[test]
fn every_flag_of_the_daemon_is_a_variable_of_the_same_name() {
    let cli = Cli::command();
    let run = cli.find_subcommand("run").unwrap();
    for flag in run.get_arguments().filter(|flag| flag.get_id() != "help") {
        let long = flag.get_long().unwrap();
        let variable = format!("KILLWATCH_{}", long.to_uppercase().replace(['.', '-'], "_"));
        assert_eq!(flag.get_env().and_then(|env| env.to_str()), Some(variable.as_str()));
    }
}

#[test]
fn the_summary_lists_every_key() {
    let config = Config { node: "node-1".parse().unwrap(), ..Config::default() };
    let shown =
        super::check_config::summary(&config).unwrap() + &super::check_config::memory(&config);
    crate::golden::check_named("check_config.txt", &shown);
}

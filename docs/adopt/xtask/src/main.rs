fn main() -> std::process::ExitCode {
    xtask_db::main()
}

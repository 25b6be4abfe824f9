//! Settings: defaults, then the file, then the environment, then flags; checked once, all problems told at once.

mod settings;

pub use settings::{
    BatchSettings, DatabaseSettings, DatabaseUrl, ExchangeSettings, PaperSettings,
    PipelineSettings, Settings, SimulateSettings, StrategySettings,
};

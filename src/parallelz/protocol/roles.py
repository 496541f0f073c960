"""Who may say what: a union of messages for each role and direction.

A peer that says anything else is refused where its frame is decoded.
"""

from __future__ import annotations

from parallelz.protocol.messages import (
    AbortTasks,
    AskHistory,
    AskQueues,
    AskState,
    CancelTasks,
    ClearEngines,
    ClearNamespace,
    DefineFunction,
    DrainChildren,
    DrainEngines,
    DropTasks,
    EndEngine,
    EngineDied,
    EngineJoined,
    EngineLeft,
    EngineReturned,
    FetchValues,
    Goodbye,
    InterruptEngines,
    InterruptTask,
    LiveOutput,
    NamespaceCleared,
    Notice,
    ProvideValue,
    Refused,
    Reply,
    ResumeTasks,
    RunTask,
    SayHello,
    ShutdownEngines,
    StopEngine,
    StoreRecords,
    StoreTrouble,
    SubmitDirect,
    SubmitMap,
    SubmitTask,
    Supervises,
    TaskEnded,
    TaskFinished,
    TasksDropped,
    Welcome,
)

FromClient = (
    DefineFunction
    | ResumeTasks
    | SubmitTask
    | SubmitMap
    | SubmitDirect
    | ProvideValue
    | AbortTasks
    | CancelTasks
    | DrainEngines
    | AskState
    | InterruptEngines
    | ClearEngines
    | ShutdownEngines
    | AskQueues
    | AskHistory
    | Goodbye
)
FromEngine = (
    EngineReturned | TaskFinished | LiveOutput | TasksDropped | NamespaceCleared | Goodbye
)
FromSupervisor = Supervises | DrainChildren | EngineDied | Goodbye
FromRecorder = Reply | StoreTrouble | Goodbye

Greeting = Welcome | Refused | SayHello
ToClient = (
    Greeting
    | TaskEnded
    | LiveOutput
    | FetchValues
    | Reply
    | EngineJoined
    | EngineLeft
    | Notice
    | Goodbye
)
ToEngine = (
    Greeting
    | DefineFunction
    | RunTask
    | DropTasks
    | InterruptTask
    | ClearNamespace
    | StopEngine
    | Goodbye
)
ToSupervisor = Greeting | EndEngine | StopEngine | Goodbye
ToRecorder = Greeting | StoreRecords | AskHistory | Goodbye
